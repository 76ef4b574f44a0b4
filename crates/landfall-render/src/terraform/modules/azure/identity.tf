variable "name" {
  type        = string
  description = "The name of the identity."
}

variable "resource_group" {
  type        = string
  description = "The resource group."
}

variable "location" {
  type        = string
  description = "The region."
}

variable "tags" {
  type        = map(string)
  description = "What everything is labelled with."
}

variable "oidc_issuer" {
  type        = string
  description = "Who signs the tokens of service accounts."
}

variable "namespace" {
  type        = string
  description = "The namespace of the service account."
}

variable "service_account" {
  type        = string
  description = "The service account that takes the identity."
}

variable "storage_account_ids" {
  type        = list(string)
  description = "The accounts whose objects it may read and write."
  default     = []
}

variable "vault_ids" {
  type        = list(string)
  description = "The vaults whose secrets it may read."
  default     = []
}

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

output "annotation" {
  description = "What the service account says to take the identity."
  value       = { "azure.workload.identity/client-id" = azurerm_user_assigned_identity.this.client_id }
}
