resource "azurerm_postgresql_flexible_server" "this" {
  # checkov:skip=CKV_AZURE_136: The file says by `copies` whether another region has the backups.
  # checkov:skip=CKV2_AZURE_57: It stands in the network by delegation, which takes the place of an endpoint.
  name                          = var.name
  resource_group_name           = var.resource_group
  location                      = var.location
  version                       = var.engine_version
  sku_name                      = var.instance_class
  storage_mb                    = pow(2, ceil(log(max(32, var.size), 2))) * 1024
  zone                          = var.zones[0]
  delegated_subnet_id           = var.subnet_id
  private_dns_zone_id           = var.private_dns_zone_id
  public_network_access_enabled = false
  backup_retention_days         = max(7, min(35, var.backup_days))
  geo_redundant_backup_enabled  = var.backup_copies
  tags                          = var.tags

  # No passwords: accounts of the tenant alone.
  authentication {
    active_directory_auth_enabled = true
    password_auth_enabled         = false
    tenant_id                     = var.tenant_id
  }

  dynamic "high_availability" {
    for_each = var.members > 1 ? [var.zones[1 % length(var.zones)]] : []

    content {
      mode                      = "ZoneRedundant"
      standby_availability_zone = high_availability.value
    }
  }

  lifecycle {
    prevent_destroy = true

    # A fail-over swaps the two.
    ignore_changes = [zone, high_availability[0].standby_availability_zone]
  }
}

resource "azurerm_postgresql_flexible_server" "replica" {
  # checkov:skip=CKV_AZURE_136: A replica is a copy already.
  # checkov:skip=CKV2_AZURE_57: It stands in the network by delegation, which takes the place of an endpoint.
  count                         = max(0, var.members - 2)
  name                          = "${var.name}-replica-${count.index + 1}"
  resource_group_name           = var.resource_group
  location                      = var.location
  create_mode                   = "Replica"
  source_server_id              = azurerm_postgresql_flexible_server.this.id
  zone                          = var.zones[(count.index + 2) % length(var.zones)]
  delegated_subnet_id           = var.subnet_id
  private_dns_zone_id           = var.private_dns_zone_id
  public_network_access_enabled = false
  tags                          = var.tags
}

resource "azurerm_postgresql_flexible_server_configuration" "tls" {
  name      = "require_secure_transport"
  server_id = azurerm_postgresql_flexible_server.this.id
  value     = var.require_tls ? "on" : "off"
}
