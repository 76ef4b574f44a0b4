# From platform.regions.primary, in staging

module "network" {
  source = "../../../modules/aws/network"
  name   = "composerp-staging"
  zones  = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
}

module "cluster" {
  source             = "../../../modules/aws/cluster"
  name               = "composerp-staging"
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

module "secrets" {
  source = "../../../modules/aws/secrets"

  secrets = {
    "composerp/staging/alerting"  = "Keys: pager-key, second-key, slack-url"
    "composerp/staging/db-secret" = "Keys: url, username, password; new values every 90d"
  }

  kms_key_arn = module.network.kms_key_arn
}

module "identity_secrets_composerp_staging" {
  source            = "../../../modules/aws/identity"
  name              = "composerp-staging-secrets-composerp-staging"
  oidc_provider_arn = module.cluster.oidc_provider_arn
  oidc_issuer       = module.cluster.oidc_issuer
  namespace         = "composerp-staging"
  service_account   = "secrets"
  kms_key_arn       = module.network.kms_key_arn
  secret_arns       = module.secrets.arns
}
