resource "azurerm_user_assigned_identity" "this" {
  name                = var.name
  resource_group_name = var.resource_group
  location            = var.location
  tags                = var.tags
}

resource "azurerm_federated_identity_credential" "this" {
  name                = var.service_account
  resource_group_name = var.resource_group
  parent_id           = azurerm_user_assigned_identity.this.id
  issuer              = var.oidc_issuer
  audience            = ["api://AzureADTokenExchange"]
  subject             = "system:serviceaccount:${var.namespace}:${var.service_account}"
}

resource "azurerm_role_assignment" "storage" {
  count                = length(var.storage_account_ids)
  scope                = var.storage_account_ids[count.index]
  role_definition_name = "Storage Blob Data Contributor"
  principal_id         = azurerm_user_assigned_identity.this.principal_id
}

resource "azurerm_role_assignment" "secrets" {
  count                = length(var.vault_ids)
  scope                = var.vault_ids[count.index]
  role_definition_name = "Key Vault Secrets User"
  principal_id         = azurerm_user_assigned_identity.this.principal_id
}
