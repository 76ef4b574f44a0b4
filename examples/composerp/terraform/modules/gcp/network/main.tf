data "google_project" "this" {}

# What the modules use of the project. Nothing is switched off when this is taken down: others may use it.
resource "google_project_service" "this" {
  for_each = toset([
    "artifactregistry.googleapis.com",
    "certificatemanager.googleapis.com",
    "cloudkms.googleapis.com",
    "compute.googleapis.com",
    "container.googleapis.com",
    "dns.googleapis.com",
    "iam.googleapis.com",
    "managedkafka.googleapis.com",
    "redis.googleapis.com",
    "secretmanager.googleapis.com",
    "servicenetworking.googleapis.com",
    "sqladmin.googleapis.com",
  ])

  service            = each.key
  disable_on_destroy = false
}

resource "google_compute_network" "this" {
  # checkov:skip=CKV2_GCP_18: The cluster makes the rules that it needs; what no rule allows is refused.
  name                    = var.name
  auto_create_subnetworks = false
  depends_on              = [google_project_service.this]
}

# A subnet spans all zones of the region.
resource "google_compute_subnetwork" "private" {
  name                     = "${var.name}-private"
  network                  = google_compute_network.this.id
  region                   = var.location
  ip_cidr_range            = cidrsubnet(var.cidr, 4, 1)
  private_ip_google_access = true

  secondary_ip_range {
    range_name    = "pods"
    ip_cidr_range = "10.64.0.0/14"
  }

  secondary_ip_range {
    range_name    = "services"
    ip_cidr_range = "10.68.0.0/20"
  }

  log_config {
    aggregation_interval = "INTERVAL_5_MIN"
    metadata             = "INCLUDE_ALL_METADATA"
  }
}

resource "google_compute_router" "this" {
  name    = var.name
  network = google_compute_network.this.id
  region  = var.location
}

resource "google_compute_router_nat" "this" {
  name                               = var.name
  router                             = google_compute_router.this.name
  region                             = var.location
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"
}

# Managed databases get their addresses here, and no public ones.
resource "google_compute_global_address" "data" {
  name          = "${var.name}-data"
  network       = google_compute_network.this.id
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 20
}

resource "google_service_networking_connection" "data" {
  network                 = google_compute_network.this.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.data.name]
}

resource "google_kms_key_ring" "this" {
  name       = var.name
  location   = var.location
  depends_on = [google_project_service.this]
}

resource "google_kms_crypto_key" "this" {
  name            = "data"
  key_ring        = google_kms_key_ring.this.id
  rotation_period = "7776000s"

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_project_service_identity" "this" {
  for_each   = toset(["sqladmin.googleapis.com", "secretmanager.googleapis.com", "artifactregistry.googleapis.com", "managedkafka.googleapis.com", "redis.googleapis.com"])
  provider   = google-beta
  service    = each.key
  depends_on = [google_project_service.this]
}

data "google_storage_project_service_account" "this" {}

resource "google_kms_crypto_key_iam_member" "services" {
  for_each = merge(
    { for service, identity in google_project_service_identity.this : service => identity.member },
    {
      "storage"   = data.google_storage_project_service_account.this.member
      "compute"   = "serviceAccount:service-${data.google_project.this.number}@compute-system.iam.gserviceaccount.com"
      "container" = "serviceAccount:service-${data.google_project.this.number}@container-engine-robot.iam.gserviceaccount.com"
    },
  )

  crypto_key_id = google_kms_crypto_key.this.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = each.value
}
