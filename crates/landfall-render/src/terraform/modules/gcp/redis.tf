variable "name" {
  type        = string
  description = "The name of the cache."
}

variable "location" {
  type        = string
  description = "The region."
}

variable "engine_version" {
  type        = string
  description = "The version, as the provider writes it."
}

variable "size" {
  type        = number
  description = "The memory of each member, in GiB."
}

variable "replicas" {
  type        = number
  description = "How many further copies the data has."
}

variable "network_id" {
  type        = string
  description = "The network."
}

variable "kms_key_id" {
  type        = string
  description = "The key that encrypts the data."
}

variable "require_tls" {
  type        = bool
  description = "Whether plain text is refused."
}

resource "google_redis_instance" "this" {
  name                    = var.name
  region                  = var.location
  redis_version           = var.engine_version
  tier                    = var.replicas > 0 ? "STANDARD_HA" : "BASIC"
  memory_size_gb          = var.replicas > 0 ? max(5, var.size) : var.size
  replica_count           = var.replicas > 0 ? var.replicas : null
  read_replicas_mode      = var.replicas > 0 ? "READ_REPLICAS_ENABLED" : null
  authorized_network      = var.network_id
  connect_mode            = "PRIVATE_SERVICE_ACCESS"
  auth_enabled            = true
  transit_encryption_mode = var.require_tls ? "SERVER_AUTHENTICATION" : "DISABLED"
  customer_managed_key    = var.kms_key_id

  persistence_config {
    persistence_mode    = "RDB"
    rdb_snapshot_period = "TWELVE_HOURS"
  }

  lifecycle {
    prevent_destroy = true
  }
}

output "address" {
  description = "The address under which clients reach the store."
  value       = google_redis_instance.this.host
}
