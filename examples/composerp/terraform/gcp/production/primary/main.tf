# From platform.regions.primary, in production

module "network" {
  source   = "../../../modules/gcp/network"
  name     = "composerp-production"
  location = "europe-west3"
}

module "cluster" {
  source             = "../../../modules/gcp/cluster"
  name               = "composerp-production"
  project            = var.project
  location           = "europe-west3"
  zones              = ["europe-west3-a", "europe-west3-b", "europe-west3-c"]
  kubernetes_version = "1.36"
  network_id         = module.network.network_id
  subnet_id          = module.network.subnet_id
  kms_key_id         = module.network.kms_key_id
  private_api        = true
  api_addresses      = var.api_addresses

  pools = {
    default = {
      count        = 6
      machine_type = "n2-standard-4"
      zones        = ["europe-west3-a", "europe-west3-b", "europe-west3-c"]
      dedicated    = false
    }
  }
}

module "store_archive" {
  source     = "../../../modules/gcp/bucket"
  name       = "composerp-production-archive"
  location   = "europe-west3"
  kms_key_id = module.network.kms_key_id
  keep_days  = 7
}

module "store_composerp_db" {
  source          = "../../../modules/gcp/postgres"
  name            = "composerp-production-composerp-db"
  location        = "europe-west3"
  instance_class  = "db-custom-2-8192"
  engine_version  = "15"
  size            = 500
  members         = 3
  zones           = ["europe-west3-a", "europe-west3-b", "europe-west3-c"]
  require_tls     = true
  network_id      = module.network.network_id
  backup_days     = 7
  backup_location = "europe-west3"
  kms_key_id      = module.network.kms_key_id
}

module "store_composerp_kafka" {
  source    = "../../../modules/gcp/kafka"
  name      = "composerp-production-composerp-kafka"
  location  = "europe-west3"
  cpu       = 6
  memory    = 24
  subnet_id = module.network.subnet_id

  topics = {
    "inventory.changed" = {
      partitions  = 12
      replication = 3
      in_sync     = 2
    }

    "replenishment.ordered" = {
      partitions  = 6
      replication = 3
      in_sync     = 2
    }
  }

  kms_key_id = module.network.kms_key_id
}

module "names" {
  source     = "../../../modules/gcp/names"
  name       = "composerp.internal"
  zone       = "composerp-production-names"
  network_id = module.network.network_id

  stores = {
    composerp-db = {
      address = module.store_composerp_db.address
      type    = "A"
    }

    composerp-kafka = {
      address = module.store_composerp_kafka.address
      type    = "CNAME"
    }
  }
}

module "secrets" {
  source     = "../../../modules/gcp/secrets"
  secrets    = ["composerp-production-alerting", "composerp-production-db-secret"]
  location   = "europe-west3"
  kms_key_id = module.network.kms_key_id
}

module "identity_secrets_composerp" {
  source          = "../../../modules/gcp/identity"
  name            = "secretscompoa729aa9f"
  project         = var.project
  namespace       = "composerp"
  service_account = "secrets"
  secret_ids      = module.secrets.ids
}
