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
