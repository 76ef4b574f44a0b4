variable "name" {
  type        = string
  description = "The name of the registry: letters and digits, one name for the whole world."
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

variable "pull_principal_id" {
  type        = string
  description = "Who pulls images."
}

resource "azurerm_container_registry" "this" {
  # checkov:skip=CKV_AZURE_139: Pipelines outside the network push images; they need an account of the tenant.
  # checkov:skip=CKV_AZURE_164: Signatures are checked in the cluster.
  # checkov:skip=CKV_AZURE_165: The file declares the regions; images are pulled again where they are needed.
  # checkov:skip=CKV_AZURE_166: Scans are a step of the pipeline, which has to pass them before the push.
  # checkov:skip=CKV_AZURE_237: One endpoint serves one region.
  name                     = var.name
  resource_group_name      = var.resource_group
  location                 = var.location
  sku                      = "Premium"
  admin_enabled            = false
  anonymous_pull_enabled   = false
  zone_redundancy_enabled  = true
  retention_policy_in_days = 14
  tags                     = var.tags

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_role_assignment" "pull" {
  scope                = azurerm_container_registry.this.id
  role_definition_name = "AcrPull"
  principal_id         = var.pull_principal_id
}

output "url" {
  description = "Where images are pushed to."
  value       = azurerm_container_registry.this.login_server
}
