# From platform.regions.primary, in production

terraform {
  required_version = ">= 1.10.0"

  # Made once, before the first run; a run holds a lock on the state.
  backend "gcs" {
    bucket = "composerp-terraform-state"
    prefix = "production/primary"
  }

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.50.0, < 8.0.0"
    }

    google-beta = {
      source  = "hashicorp/google-beta"
      version = ">= 6.50.0, < 8.0.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = "europe-west3"

  default_labels = {
    platform    = "composerp"
    environment = "production"
    managed-by  = "landfall"
  }
}

provider "google-beta" {
  project = var.project
  region  = "europe-west3"

  default_labels = {
    platform    = "composerp"
    environment = "production"
    managed-by  = "landfall"
  }
}
