# From platform.regions.primary, in production

module "network" {
  source = "../../../modules/aws/network"
  name   = "composerp-production"
  zones  = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
}

module "cluster" {
  source             = "../../../modules/aws/cluster"
  name               = "composerp-production"
  kubernetes_version = "1.36"
  subnet_ids         = module.network.private_subnet_ids
  subnet_ids_by_zone = module.network.private_subnet_ids_by_zone
  kms_key_arn        = module.network.kms_key_arn
  private_api        = true
  administrator_arns = var.administrator_arns

  pools = {
    default = {
      count        = 6
      machine_type = "m7i.xlarge"
      zones        = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
      dedicated    = false
    }
  }
}

module "store_archive" {
  source      = "../../../modules/aws/bucket"
  name        = "composerp-production-archive"
  kms_key_arn = module.network.kms_key_arn
  keep_days   = 7
}

module "store_composerp_db" {
  source                   = "../../../modules/aws/postgres"
  name                     = "composerp-production-composerp-db"
  engine_version           = "15"
  size                     = 500
  members                  = 3
  zones                    = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  require_tls              = true
  backup_days              = 7
  instance_class           = "db.r7g.xlarge"
  network_id               = module.network.network_id
  subnet_ids               = module.network.data_subnet_ids
  client_security_group_id = module.cluster.security_group_id
  kms_key_arn              = module.network.kms_key_arn
}

module "store_composerp_kafka" {
  source                   = "../../../modules/aws/kafka"
  name                     = "composerp-production-composerp-kafka"
  engine_version           = "4.1.x.kraft"
  size                     = 100
  members                  = 3
  replication              = 3
  in_sync                  = 2
  require_tls              = true
  client_secret_arns       = var.kafka_secret_arns
  instance_class           = "kafka.m7g.large"
  network_id               = module.network.network_id
  subnet_ids               = module.network.data_subnet_ids
  client_security_group_id = module.cluster.security_group_id
  kms_key_arn              = module.network.kms_key_arn
}

module "names" {
  source     = "../../../modules/aws/names"
  name       = "composerp.internal"
  network_id = module.network.network_id

  stores = {
    composerp-db    = module.store_composerp_db.address
    composerp-kafka = module.store_composerp_kafka.address
  }
}

module "secrets" {
  source = "../../../modules/aws/secrets"

  secrets = {
    "composerp/production/alerting"  = "Keys: pager-key, second-key, slack-url"
    "composerp/production/db-secret" = "Keys: url, username, password; new values every 90d"
  }

  kms_key_arn = module.network.kms_key_arn
}

module "identity_secrets_composerp" {
  source            = "../../../modules/aws/identity"
  name              = "composerp-production-secrets-composerp"
  oidc_provider_arn = module.cluster.oidc_provider_arn
  oidc_issuer       = module.cluster.oidc_issuer
  namespace         = "composerp"
  service_account   = "secrets"
  kms_key_arn       = module.network.kms_key_arn
  secret_arns       = module.secrets.arns
}
