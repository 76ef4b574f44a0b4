# From platform.regions.primary, in staging

module "network" {
  source   = "../../../modules/gcp/network"
  name     = "composerp-staging"
  location = "europe-west3"
}

module "cluster" {
  source             = "../../../modules/gcp/cluster"
  name               = "composerp-staging"
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

module "secrets" {
  source     = "../../../modules/gcp/secrets"
  secrets    = ["composerp-staging-alerting", "composerp-staging-db-secret"]
  location   = "europe-west3"
  kms_key_id = module.network.kms_key_id
}

module "identity_secrets_composerp_staging" {
  source          = "../../../modules/gcp/identity"
  name            = "secretscompo10dbac2d"
  project         = var.project
  namespace       = "composerp-staging"
  service_account = "secrets"
  secret_ids      = module.secrets.ids
}
