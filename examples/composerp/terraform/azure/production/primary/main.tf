# From platform.regions.primary, in production

module "network" {
  source   = "../../../modules/azure/network"
  name     = "composerp-production"
  location = "germanywestcentral"

  tags = {
    platform    = "composerp"
    environment = "production"
    managed-by  = "landfall"
  }

  zones = ["1", "2", "3"]
}

module "cluster" {
  source         = "../../../modules/azure/cluster"
  name           = "composerp-production"
  resource_group = module.network.resource_group
  location       = "germanywestcentral"

  tags = {
    platform    = "composerp"
    environment = "production"
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

module "store_archive" {
  source         = "../../../modules/azure/bucket"
  name           = "archive045b24e7"
  resource_group = module.network.resource_group
  location       = "germanywestcentral"

  tags = {
    platform    = "composerp"
    environment = "production"
    managed-by  = "landfall"
  }

  subnet_id = module.network.endpoint_subnet_id
  keep_days = 7
}

module "store_composerp_db" {
  source         = "../../../modules/azure/postgres"
  name           = "composerp-production-composerp-db"
  resource_group = module.network.resource_group
  location       = "germanywestcentral"

  tags = {
    platform    = "composerp"
    environment = "production"
    managed-by  = "landfall"
  }

  tenant_id           = var.tenant_id
  subnet_id           = module.network.data_subnet_id
  private_dns_zone_id = module.network.postgres_zone_id
  instance_class      = "GP_Standard_D2ds_v5"
  engine_version      = "15"
  size                = 500
  members             = 3
  zones               = ["1", "2", "3"]
  require_tls         = true
  backup_days         = 7
  backup_copies       = false
}

module "store_composerp_kafka" {
  source         = "../../../modules/azure/kafka"
  name           = "composerp-production-composerp-kafka"
  resource_group = module.network.resource_group
  location       = "germanywestcentral"

  tags = {
    platform    = "composerp"
    environment = "production"
    managed-by  = "landfall"
  }

  subnet_id = module.network.endpoint_subnet_id
  capacity  = 4

  topics = {
    "inventory.changed" = {
      partitions      = 12
      retention_hours = 168
    }

    "replenishment.ordered" = {
      partitions      = 6
      retention_hours = 168
    }
  }
}

module "names" {
  source         = "../../../modules/azure/names"
  name           = "composerp.internal"
  resource_group = module.network.resource_group

  tags = {
    platform    = "composerp"
    environment = "production"
    managed-by  = "landfall"
  }

  network_id = module.network.network_id

  stores = {
    composerp-db    = module.store_composerp_db.address
    composerp-kafka = module.store_composerp_kafka.address
  }
}

module "secrets" {
  source         = "../../../modules/azure/secrets"
  name           = "secretsff2916c4"
  resource_group = module.network.resource_group
  location       = "germanywestcentral"

  tags = {
    platform    = "composerp"
    environment = "production"
    managed-by  = "landfall"
  }

  tenant_id = var.tenant_id
  subnet_id = module.network.endpoint_subnet_id
}

module "identity_secrets_composerp" {
  source         = "../../../modules/azure/identity"
  name           = "composerp-production-secrets-composerp"
  resource_group = module.network.resource_group
  location       = "germanywestcentral"

  tags = {
    platform    = "composerp"
    environment = "production"
    managed-by  = "landfall"
  }

  oidc_issuer     = module.cluster.oidc_issuer
  namespace       = "composerp"
  service_account = "secrets"
  vault_ids       = [module.secrets.id]
}
