# From platform.regions.primary, in staging

terraform {
  required_version = ">= 1.10.0"

  # Made once, before the first run; a run holds a lock on the state.
  backend "s3" {
    bucket       = "composerp-terraform-state"
    key          = "staging/primary.tfstate"
    region       = "eu-central-1"
    encrypt      = true
    use_lockfile = true
  }

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }
}

provider "aws" {
  region = "eu-central-1"

  default_tags {
    tags = {
      platform    = "composerp"
      environment = "staging"
      managed-by  = "landfall"
    }
  }
}
