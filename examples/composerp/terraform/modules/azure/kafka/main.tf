resource "azurerm_eventhub_namespace" "this" {
  # checkov:skip=CKV_AZURE_228: The region's zones are used by the provider without being asked.
  name                          = var.name
  resource_group_name           = var.resource_group
  location                      = var.location
  sku                           = "Premium"
  capacity                      = var.capacity
  local_authentication_enabled  = false
  minimum_tls_version           = "1.2"
  public_network_access_enabled = false
  tags                          = var.tags

  identity {
    type = "SystemAssigned"
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_eventhub" "this" {
  for_each        = var.topics
  name            = each.key
  namespace_id    = azurerm_eventhub_namespace.this.id
  partition_count = each.value.partitions

  retention_description {
    cleanup_policy          = "Delete"
    retention_time_in_hours = each.value.retention_hours
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_private_endpoint" "this" {
  name                = var.name
  resource_group_name = var.resource_group
  location            = var.location
  subnet_id           = var.subnet_id
  tags                = var.tags

  private_service_connection {
    name                           = var.name
    private_connection_resource_id = azurerm_eventhub_namespace.this.id
    subresource_names              = ["namespace"]
    is_manual_connection           = false
  }
}
