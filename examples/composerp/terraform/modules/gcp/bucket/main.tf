resource "google_storage_bucket" "this" {
  # checkov:skip=CKV_GCP_62: Accesses are logged by the project's audit log.
  name                        = var.name
  location                    = upper(var.location)
  force_destroy               = false
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  rpo                         = length(var.copy_regions) > 0 ? "ASYNC_TURBO" : null

  versioning {
    enabled = true
  }

  dynamic "custom_placement_config" {
    for_each = length(var.copy_regions) > 0 ? [var.copy_regions] : []

    content {
      data_locations = [for region in custom_placement_config.value : upper(region)]
    }
  }

  dynamic "encryption" {
    for_each = var.kms_key_id == null ? [] : [var.kms_key_id]

    content {
      default_kms_key_name = encryption.value
    }
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }

    condition {
      days_since_noncurrent_time = var.keep_days > 0 ? var.keep_days : 90
    }
  }

  dynamic "lifecycle_rule" {
    for_each = var.keep_days > 0 ? [var.keep_days] : []

    content {
      action {
        type = "Delete"
      }

      condition {
        age = lifecycle_rule.value
      }
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}
