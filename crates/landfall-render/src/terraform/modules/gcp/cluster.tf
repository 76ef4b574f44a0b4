variable "name" {
  type        = string
  description = "The name of the cluster."
}

variable "project" {
  type        = string
  description = "The project."
}

variable "location" {
  type        = string
  description = "The region."
}

variable "zones" {
  type        = list(string)
  description = "The zones of the nodes."
}

variable "kubernetes_version" {
  type        = string
  description = "The minor version of Kubernetes."
}

variable "network_id" {
  type        = string
  description = "The network."
}

variable "subnet_id" {
  type        = string
  description = "The private subnet of the nodes."
}

variable "kms_key_id" {
  type        = string
  description = "The key that encrypts Secrets and volumes."
}

variable "private_api" {
  type        = bool
  description = "Whether the API server has a private address only."
}

variable "api_addresses" {
  type        = list(string)
  description = "Who may reach the API server, as CIDR blocks."
  default     = []
}

variable "pools" {
  type = map(object({
    count        = number
    machine_type = string
    zones        = list(string)
    dedicated    = bool
  }))

  description = "The node pools; their nodes are spread evenly over their zones."
}

resource "google_service_account" "node" {
  account_id   = "${substr(var.name, 0, 25)}-node"
  display_name = "Nodes of ${var.name}"
}

resource "google_project_iam_member" "node" {
  for_each = toset(["roles/container.defaultNodeServiceAccount", "roles/artifactregistry.reader"])
  project  = var.project
  role     = each.key
  member   = google_service_account.node.member
}

resource "google_container_cluster" "this" {
  # checkov:skip=CKV_GCP_65: Groups come from the identity provider of the file, by OpenID Connect.
  # checkov:skip=CKV_GCP_66: Which images may run is for a policy in the cluster, which knows the digests of a release.
  # checkov:skip=CKV_GCP_12: The data path (Dataplane V2) enforces network policies by itself.
  # checkov:skip=CKV_GCP_21: Labels come from the provider's default labels.
  name                        = var.name
  location                    = var.location
  node_locations              = var.zones
  min_master_version          = var.kubernetes_version
  network                     = var.network_id
  subnetwork                  = var.subnet_id
  remove_default_node_pool    = true
  initial_node_count          = 1
  datapath_provider           = "ADVANCED_DATAPATH"
  enable_intranode_visibility = true
  enable_shielded_nodes       = true
  deletion_protection         = true

  release_channel {
    channel = "STABLE"
  }

  private_cluster_config {
    enable_private_nodes    = true
    enable_private_endpoint = var.private_api
    master_ipv4_cidr_block  = "172.16.0.0/28"
  }

  master_authorized_networks_config {
    dynamic "cidr_blocks" {
      for_each = toset(var.api_addresses)

      content {
        cidr_block = cidr_blocks.value
      }
    }
  }

  master_auth {
    client_certificate_config {
      issue_client_certificate = false
    }
  }

  ip_allocation_policy {
    cluster_secondary_range_name  = "pods"
    services_secondary_range_name = "services"
  }

  workload_identity_config {
    workload_pool = "${var.project}.svc.id.goog"
  }

  database_encryption {
    state    = "ENCRYPTED"
    key_name = var.kms_key_id
  }

  node_config {
    service_account = google_service_account.node.email

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    workload_metadata_config {
      mode = "GKE_METADATA"
    }
  }
}

resource "google_container_node_pool" "this" {
  for_each       = var.pools
  name           = each.key
  cluster        = google_container_cluster.this.id
  node_locations = each.value.zones

  # The count is for each zone.
  node_count = ceil(each.value.count / length(each.value.zones))

  node_config {
    machine_type      = each.value.machine_type
    image_type        = "COS_CONTAINERD"
    service_account   = google_service_account.node.email
    boot_disk_kms_key = var.kms_key_id
    oauth_scopes      = ["https://www.googleapis.com/auth/cloud-platform"]

    labels = {
      "landfall.dev/pool" = each.key
    }

    metadata = {
      disable-legacy-endpoints = "true"
    }

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    workload_metadata_config {
      mode = "GKE_METADATA"
    }

    dynamic "taint" {
      for_each = each.value.dedicated ? [each.key] : []

      content {
        key    = "landfall.dev/pool"
        value  = taint.value
        effect = "NO_SCHEDULE"
      }
    }
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  upgrade_settings {
    max_surge       = 1
    max_unavailable = 0
  }
}

output "name" {
  description = "The name of the cluster."
  value       = google_container_cluster.this.name
}

output "endpoint" {
  description = "The address of the API server."
  value       = google_container_cluster.this.endpoint
}
