variable "name" {
  type        = string
  description = "The name of the brokers."
}

variable "location" {
  type        = string
  description = "The region."
}

variable "cpu" {
  type        = number
  description = "The cores of all brokers together, at least 3."
}

variable "memory" {
  type        = number
  description = "The memory of all brokers together, in GiB."
}

variable "subnet_id" {
  type        = string
  description = "The private subnet from which clients connect."
}

variable "kms_key_id" {
  type        = string
  description = "The key that encrypts the data."
}

variable "topics" {
  type        = map(object({ partitions = number, replication = number, in_sync = number }))
  description = "The topics by name."
}

resource "google_managed_kafka_cluster" "this" {
  cluster_id = var.name
  location   = var.location

  capacity_config {
    vcpu_count   = var.cpu
    memory_bytes = var.memory * 1024 * 1024 * 1024
  }

  gcp_config {
    kms_key = var.kms_key_id

    access_config {
      network_configs {
        subnet = var.subnet_id
      }
    }
  }

  rebalance_config {
    mode = "AUTO_REBALANCE_ON_SCALE_UP"
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_managed_kafka_topic" "this" {
  for_each           = var.topics
  topic_id           = each.key
  cluster            = google_managed_kafka_cluster.this.cluster_id
  location           = var.location
  partition_count    = each.value.partitions
  replication_factor = each.value.replication

  configs = {
    "min.insync.replicas" = tostring(each.value.in_sync)
  }

  lifecycle {
    prevent_destroy = true
  }
}

output "address" {
  description = "The brokers that clients ask first."
  value       = "bootstrap.${var.name}.${var.location}.managedkafka.${google_managed_kafka_cluster.this.project}.cloud.goog:9092"
}
