variable "name" {
  type        = string
  description = "The name of the instance."
}

variable "location" {
  type        = string
  description = "The region."
}

variable "engine_version" {
  type        = string
  description = "The major version; the provider keeps the minor version current."
}

variable "instance_class" {
  type        = string
  description = "The machine of each member."
}

variable "size" {
  type        = number
  description = "The size of the volume, in GiB."
}

variable "members" {
  type        = number
  description = "How many copies of the data: the second is a standby in another zone, the others are read replicas."
}

variable "zones" {
  type        = list(string)
  description = "The zones of the members."
}

variable "network_id" {
  type        = string
  description = "The network; there is no public address."
}

variable "kms_key_id" {
  type        = string
  description = "The key that encrypts the data."
}

variable "require_tls" {
  type        = bool
  description = "Whether plain text is refused."
}

variable "backup_days" {
  type        = number
  description = "How many daily backups are kept."
}

variable "backup_location" {
  type        = string
  description = "Where backups are kept."
}

resource "google_sql_database_instance" "this" {
  # checkov:skip=CKV_GCP_6: Clients are asked for a password and not for a certificate; the connection is encrypted.
  # checkov:skip=CKV_GCP_79: The file says which version it is.
  name                = var.name
  region              = var.location
  database_version    = "POSTGRES_${var.engine_version}"
  encryption_key_name = var.kms_key_id
  deletion_protection = true

  settings {
    tier                        = var.instance_class
    edition                     = "ENTERPRISE"
    availability_type           = var.members > 1 ? "REGIONAL" : "ZONAL"
    disk_type                   = "PD_SSD"
    disk_size                   = var.size
    disk_autoresize             = true
    deletion_protection_enabled = true

    location_preference {
      zone           = var.zones[0]
      secondary_zone = var.members > 1 ? var.zones[1 % length(var.zones)] : null
    }

    ip_configuration {
      ipv4_enabled    = false
      private_network = var.network_id
      ssl_mode        = var.require_tls ? "ENCRYPTED_ONLY" : "ALLOW_UNENCRYPTED_AND_ENCRYPTED"
    }

    backup_configuration {
      enabled                        = true
      location                       = var.backup_location
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = min(7, var.backup_days)

      backup_retention_settings {
        retained_backups = var.backup_days
      }
    }

    database_flags {
      name  = "cloudsql.enable_pgaudit"
      value = "on"
    }

    database_flags {
      name  = "cloudsql.iam_authentication"
      value = "on"
    }

    database_flags {
      name  = "log_checkpoints"
      value = "on"
    }

    database_flags {
      name  = "log_connections"
      value = "on"
    }

    database_flags {
      name  = "log_disconnections"
      value = "on"
    }

    database_flags {
      name  = "log_duration"
      value = "on"
    }

    database_flags {
      name  = "log_hostname"
      value = "on"
    }

    database_flags {
      name  = "log_lock_waits"
      value = "on"
    }

    database_flags {
      name  = "log_min_duration_statement"
      value = "-1"
    }

    database_flags {
      name  = "log_min_error_statement"
      value = "error"
    }

    database_flags {
      name  = "log_min_messages"
      value = "error"
    }

    database_flags {
      name  = "log_statement"
      value = "ddl"
    }

    database_flags {
      name  = "log_temp_files"
      value = "0"
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_sql_database_instance" "replica" {
  # checkov:skip=CKV_GCP_6: Clients are asked for a password and not for a certificate; the connection is encrypted.
  # checkov:skip=CKV_GCP_79: The file says which version it is.
  count                = max(0, var.members - 2)
  name                 = "${var.name}-replica-${count.index + 1}"
  region               = var.location
  master_instance_name = google_sql_database_instance.this.name
  database_version     = google_sql_database_instance.this.database_version
  encryption_key_name  = var.kms_key_id
  deletion_protection  = true

  settings {
    tier              = var.instance_class
    edition           = "ENTERPRISE"
    availability_type = "ZONAL"
    disk_type         = "PD_SSD"

    location_preference {
      zone = var.zones[(count.index + 2) % length(var.zones)]
    }

    ip_configuration {
      ipv4_enabled    = false
      private_network = var.network_id
      ssl_mode        = var.require_tls ? "ENCRYPTED_ONLY" : "ALLOW_UNENCRYPTED_AND_ENCRYPTED"
    }

    database_flags {
      name  = "cloudsql.enable_pgaudit"
      value = "on"
    }

    database_flags {
      name  = "cloudsql.iam_authentication"
      value = "on"
    }

    database_flags {
      name  = "log_checkpoints"
      value = "on"
    }

    database_flags {
      name  = "log_connections"
      value = "on"
    }

    database_flags {
      name  = "log_disconnections"
      value = "on"
    }

    database_flags {
      name  = "log_duration"
      value = "on"
    }

    database_flags {
      name  = "log_hostname"
      value = "on"
    }

    database_flags {
      name  = "log_lock_waits"
      value = "on"
    }

    database_flags {
      name  = "log_min_duration_statement"
      value = "-1"
    }

    database_flags {
      name  = "log_min_error_statement"
      value = "error"
    }

    database_flags {
      name  = "log_min_messages"
      value = "error"
    }

    database_flags {
      name  = "log_statement"
      value = "ddl"
    }

    database_flags {
      name  = "log_temp_files"
      value = "0"
    }
  }
}

output "address" {
  description = "The address under which clients reach the store."
  value       = google_sql_database_instance.this.private_ip_address
}

output "replica_addresses" {
  description = "The addresses of the read replicas."
  value       = google_sql_database_instance.replica[*].private_ip_address
}
