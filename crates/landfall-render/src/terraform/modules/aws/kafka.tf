variable "name" {
  type        = string
  description = "The name of the brokers."
}

variable "engine_version" {
  type        = string
  description = "The version, as the provider writes it."
}

variable "instance_class" {
  type        = string
  description = "The machine of each broker."
}

variable "size" {
  type        = number
  description = "The size of each broker's volume, in GiB."
}

variable "members" {
  type        = number
  description = "How many brokers; a multiple of the number of zones."
}

variable "replication" {
  type        = number
  description = "On how many brokers each topic is kept."
}

variable "in_sync" {
  type        = number
  description = "How many of them must have a message before it is acknowledged."
}

variable "network_id" {
  type        = string
  description = "The network."
}

variable "subnet_ids" {
  type        = list(string)
  description = "The data subnets."
}

variable "client_security_group_id" {
  type        = string
  description = "The security group of the nodes, which alone may connect."
}

variable "kms_key_arn" {
  type        = string
  description = "The key that encrypts the data."
}

variable "client_secret_arns" {
  type        = set(string)
  description = "The secrets with the username and the password of each client: their names begin with AmazonMSK_, and the same key encrypts them."
  default     = []
}

variable "require_tls" {
  type        = bool
  description = "Whether plain text is refused."
}

resource "aws_security_group" "this" {
  name        = var.name
  description = "Who may reach ${var.name}"
  vpc_id      = var.network_id
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  security_group_id            = aws_security_group.this.id
  referenced_security_group_id = var.client_security_group_id
  description                  = "The nodes of the cluster"
  ip_protocol                  = "tcp"
  from_port                    = 9092
  to_port                      = 9098
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/landfall/${var.name}/brokers"
  retention_in_days = 365
  kms_key_id        = var.kms_key_arn
}

resource "aws_msk_configuration" "this" {
  name           = var.name
  kafka_versions = [var.engine_version]

  server_properties = join("\n", [
    "auto.create.topics.enable=false",
    "default.replication.factor=${var.replication}",
    "min.insync.replicas=${var.in_sync}",
    "unclean.leader.election.enable=false",
  ])

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_msk_cluster" "this" {
  # checkov:skip=CKV_AWS_81: Whether clients must use TLS is declared by the file; brokers use it among themselves.
  cluster_name           = var.name
  kafka_version          = var.engine_version
  number_of_broker_nodes = var.members
  enhanced_monitoring    = "PER_TOPIC_PER_BROKER"

  broker_node_group_info {
    instance_type   = var.instance_class
    client_subnets  = var.subnet_ids
    security_groups = [aws_security_group.this.id]

    storage_info {
      ebs_storage_info {
        volume_size = var.size
      }
    }
  }

  client_authentication {
    unauthenticated = false

    sasl {
      scram = true
    }
  }

  configuration_info {
    arn      = aws_msk_configuration.this.arn
    revision = aws_msk_configuration.this.latest_revision
  }

  encryption_info {
    encryption_at_rest_kms_key_arn = var.kms_key_arn

    encryption_in_transit {
      client_broker = var.require_tls ? "TLS" : "TLS_PLAINTEXT"
      in_cluster    = true
    }
  }

  logging_info {
    broker_logs {
      cloudwatch_logs {
        enabled   = true
        log_group = aws_cloudwatch_log_group.this.name
      }
    }
  }

  open_monitoring {
    prometheus {
      jmx_exporter {
        enabled_in_broker = true
      }

      node_exporter {
        enabled_in_broker = true
      }
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

# Clients show a username and a password, as those of the brokers in a cluster do.
resource "aws_msk_scram_secret_association" "this" {
  count           = length(var.client_secret_arns) > 0 ? 1 : 0
  cluster_arn     = aws_msk_cluster.this.arn
  secret_arn_list = var.client_secret_arns
}

output "address" {
  description = "The brokers that clients ask first."
  value       = aws_msk_cluster.this.bootstrap_brokers_sasl_scram
}
