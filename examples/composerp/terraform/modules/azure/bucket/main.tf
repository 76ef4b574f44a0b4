locals {
  # The account and its copies are made alike; the first is the account itself.
  accounts = merge(
    { "" = { name = var.name, location = var.location } },
    { for index, location in var.copy_locations : location => { name = "${substr(var.name, 0, 22)}c${index}", location = location } },
  )
}

resource "azurerm_storage_account" "this" {
  # checkov:skip=CKV_AZURE_33: No queue is in the account.
  # checkov:skip=CKV2_AZURE_1: A key of the provider encrypts it; copies in other regions need keys there otherwise.
  # checkov:skip=CKV_AZURE_206: The file says by `copies` which regions have a copy.
  # checkov:skip=CKV2_AZURE_33: The account itself has an endpoint; copies are reached for a restore only.
  for_each                          = local.accounts
  name                              = each.value.name
  resource_group_name               = var.resource_group
  location                          = each.value.location
  account_tier                      = "Standard"
  account_replication_type          = "ZRS"
  min_tls_version                   = "TLS1_2"
  https_traffic_only_enabled        = true
  infrastructure_encryption_enabled = true
  shared_access_key_enabled         = false
  public_network_access_enabled     = false
  allow_nested_items_to_be_public   = false
  cross_tenant_replication_enabled  = false
  local_user_enabled                = false
  tags                              = var.tags

  blob_properties {
    versioning_enabled  = true
    change_feed_enabled = true

    delete_retention_policy {
      days = 30
    }

    container_delete_retention_policy {
      days = 30
    }
  }

  sas_policy {
    expiration_period = "01.00:00:00"
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_storage_container" "this" {
  # checkov:skip=CKV2_AZURE_21: Reads are in the account's own log.
  for_each              = azurerm_storage_account.this
  name                  = "data"
  storage_account_id    = each.value.id
  container_access_type = "private"
}

resource "azurerm_storage_management_policy" "this" {
  for_each           = azurerm_storage_account.this
  storage_account_id = each.value.id

  rule {
    name    = "keep"
    enabled = true

    filters {
      blob_types = ["blockBlob"]
    }

    actions {
      dynamic "base_blob" {
        for_each = var.keep_days > 0 ? [var.keep_days] : []

        content {
          delete_after_days_since_modification_greater_than = base_blob.value
        }
      }

      version {
        delete_after_days_since_creation = var.keep_days > 0 ? var.keep_days : 90
      }
    }
  }
}

resource "azurerm_storage_object_replication" "this" {
  for_each                       = toset(var.copy_locations)
  source_storage_account_id      = azurerm_storage_account.this[""].id
  destination_storage_account_id = azurerm_storage_account.this[each.key].id

  rules {
    source_container_name      = azurerm_storage_container.this[""].name
    destination_container_name = azurerm_storage_container.this[each.key].name
    copy_blobs_created_after   = "Everything"
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
    private_connection_resource_id = azurerm_storage_account.this[""].id
    subresource_names              = ["blob"]
    is_manual_connection           = false
  }
}
