locals {
  # The system needs a pool without taints; the first such pool is it.
  first = [for pool in sort(keys(var.pools)) : pool if !var.pools[pool].dedicated][0]
}

resource "azurerm_kubernetes_cluster" "this" {
  # checkov:skip=CKV_AZURE_115: The file says by `private-api` whether the API server has a public address.
  # checkov:skip=CKV_AZURE_117: Disks are encrypted by a key of the provider and on the host.
  # checkov:skip=CKV_AZURE_226: Not every machine type has room for an ephemeral disk.
  # checkov:skip=CKV_AZURE_4: The monitoring that the file declares runs in the cluster.
  # checkov:skip=CKV_AZURE_168: How many pods fit follows from their requests.
  # checkov:skip=CKV_AZURE_232: Small platforms declare one pool.
  name                              = var.name
  resource_group_name               = var.resource_group
  location                          = var.location
  dns_prefix                        = var.name
  kubernetes_version                = var.kubernetes_version
  sku_tier                          = "Standard"
  automatic_upgrade_channel         = "patch"
  private_cluster_enabled           = var.private_api
  local_account_disabled            = true
  role_based_access_control_enabled = true
  oidc_issuer_enabled               = true
  workload_identity_enabled         = true
  azure_policy_enabled              = true
  tags                              = var.tags

  default_node_pool {
    name                        = substr(replace(local.first, "-", ""), 0, 12)
    vm_size                     = var.pools[local.first].machine_type
    node_count                  = var.pools[local.first].count
    zones                       = var.pools[local.first].zones
    vnet_subnet_id              = var.subnet_id
    host_encryption_enabled     = true
    temporary_name_for_rotation = "rotation"
    tags                        = var.tags

    node_labels = {
      "landfall.dev/pool" = local.first
    }

    upgrade_settings {
      max_surge = "1"
    }
  }

  identity {
    type = "SystemAssigned"
  }

  azure_active_directory_role_based_access_control {
    tenant_id          = var.tenant_id
    azure_rbac_enabled = true
  }

  dynamic "api_server_access_profile" {
    for_each = var.private_api ? [] : [var.api_addresses]

    content {
      authorized_ip_ranges = api_server_access_profile.value
    }
  }

  key_vault_secrets_provider {
    secret_rotation_enabled = true
  }

  network_profile {
    network_plugin      = "azure"
    network_plugin_mode = "overlay"
    network_policy      = "cilium"
    network_data_plane  = "cilium"
    outbound_type       = "userAssignedNATGateway"
    service_cidr        = "10.68.0.0/20"
    dns_service_ip      = "10.68.0.10"
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_kubernetes_cluster_node_pool" "this" {
  # checkov:skip=CKV_AZURE_168: How many pods fit follows from their requests.
  # checkov:skip=CKV_AZURE_227: It is encrypted on the host.
  for_each                = { for pool, settings in var.pools : pool => settings if pool != local.first }
  name                    = substr(replace(each.key, "-", ""), 0, 12)
  kubernetes_cluster_id   = azurerm_kubernetes_cluster.this.id
  vm_size                 = each.value.machine_type
  node_count              = each.value.count
  zones                   = each.value.zones
  vnet_subnet_id          = var.subnet_id
  host_encryption_enabled = true
  node_taints             = each.value.dedicated ? ["landfall.dev/pool=${each.key}:NoSchedule"] : []
  tags                    = var.tags

  node_labels = {
    "landfall.dev/pool" = each.key
  }

  upgrade_settings {
    max_surge = "1"
  }
}
