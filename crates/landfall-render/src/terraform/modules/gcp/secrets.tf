variable "secrets" {
  type        = set(string)
  description = "The secrets by their names. Values are put there by people or by rotation, never here."
}

variable "location" {
  type        = string
  description = "The region, which the values do not leave."
}

variable "kms_key_id" {
  type        = string
  description = "The key that encrypts the values."
}

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

output "ids" {
  description = "The secrets."
  value       = values(google_secret_manager_secret.this)[*].secret_id
}
