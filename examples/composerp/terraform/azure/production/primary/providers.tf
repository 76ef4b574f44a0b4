# From platform.regions.primary, in production

terraform {
  required_version = ">= 1.10.0"

  # Made once, before the first run; a run holds a lock on the state.
  backend "azurerm" {
    resource_group_name  = "composerp-terraform-state"
    storage_account_name = "composerpterraformstate"
    container_name       = "state"
    key                  = "production/primary.tfstate"
    use_azuread_auth     = true
  }

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 4.55"
    }
  }
}

provider "azurerm" {
  subscription_id     = var.subscription_id
  storage_use_azuread = true

  features {}
}
