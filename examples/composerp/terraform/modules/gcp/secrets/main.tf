resource "google_secret_manager_secret" "this" {
  for_each  = var.secrets
  secret_id = each.key

  replication {
    user_managed {
      replicas {
        location = var.location

        customer_managed_encryption {
          kms_key_name = var.kms_key_id
        }
      }
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}
