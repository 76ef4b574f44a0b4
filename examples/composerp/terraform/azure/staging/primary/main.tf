# From platform.regions.primary, in staging

module "network" {
  source   = "../../../modules/azure/network"
  name     = "composerp-staging"
  location = "germanywestcentral"

  tags = {
    platform    = "composerp"
    environment = "staging"
    managed-by  = "landfall"
  }

  zones = ["1", "2", "3"]
}

module "cluster" {
  source         = "../../../modules/azure/cluster"
  name           = "composerp-staging"
  resource_group = module.network.resource_group
  location       = "germanywestcentral"

  tags = {
    platform    = "composerp"
    environment = "staging"
    managed-by  = "landfall"
  }

  kubernetes_version = "1.36"
  subnet_id          = module.network.private_subnet_id
  tenant_id          = var.tenant_id
  private_api        = true

  pools = {
    default = {
      count        = 6
      machine_type = "Standard_D4s_v5"
      zones        = ["1", "2", "3"]
      dedicated    = false
    }
  }
}

module "secrets" {
  source         = "../../../modules/azure/secrets"
  name           = "secrets42305f5a"
  resource_group = module.network.resource_group
  location       = "germanywestcentral"

  tags = {
    platform    = "composerp"
    environment = "staging"
    managed-by  = "landfall"
  }

  tenant_id = var.tenant_id
  subnet_id = module.network.endpoint_subnet_id
}

module "identity_secrets_composerp_staging" {
  source         = "../../../modules/azure/identity"
  name           = "composerp-staging-secrets-composerp-staging"
  resource_group = module.network.resource_group
  location       = "germanywestcentral"

  tags = {
    platform    = "composerp"
    environment = "staging"
    managed-by  = "landfall"
  }

  oidc_issuer     = module.cluster.oidc_issuer
  namespace       = "composerp-staging"
  service_account = "secrets"
  vault_ids       = [module.secrets.id]
}
