variable "name" {
  type        = string
  description = "The name of the domain."
}

variable "instance_class" {
  type        = string
  description = "The machine of each member."
}

variable "size" {
  type        = number
  description = "The size of each member's volume, in GiB."
}

variable "members" {
  type        = number
  description = "How many members, spread over the zones."
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
  from_port                    = 443
  to_port                      = 443
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/landfall/${var.name}/audit"
  retention_in_days = 365
  kms_key_id        = var.kms_key_arn
}

resource "aws_opensearch_domain" "this" {
  # checkov:skip=CKV_AWS_317: Audit logs need users in the domain; who may reach it is said by network and IAM.
  # checkov:skip=CKV_AWS_318: Separate masters pay off from ten members on; the file declares how many there are.
  # checkov:skip=CKV2_AWS_59: Separate masters pay off from ten members on; the file declares how many there are.
  domain_name    = var.name
  engine_version = "OpenSearch_2.19"

  cluster_config {
    instance_type          = var.instance_class
    instance_count         = var.members
    zone_awareness_enabled = var.members > 1

    dynamic "zone_awareness_config" {
      for_each = var.members > 1 ? [min(var.members, length(var.subnet_ids), 3)] : []

      content {
        availability_zone_count = zone_awareness_config.value
      }
    }
  }

  ebs_options {
    ebs_enabled = true
    volume_type = "gp3"
    volume_size = var.size
  }

  vpc_options {
    subnet_ids         = slice(var.subnet_ids, 0, min(var.members, length(var.subnet_ids)))
    security_group_ids = [aws_security_group.this.id]
  }

  encrypt_at_rest {
    enabled    = true
    kms_key_id = var.kms_key_arn
  }

  node_to_node_encryption {
    enabled = true
  }

  domain_endpoint_options {
    enforce_https       = true
    tls_security_policy = "Policy-Min-TLS-1-2-PFS-2023-10"
  }

  advanced_security_options {
    enabled                        = true
    internal_user_database_enabled = false
  }

  log_publishing_options {
    log_type                 = "AUDIT_LOGS"
    cloudwatch_log_group_arn = aws_cloudwatch_log_group.this.arn
  }

  lifecycle {
    prevent_destroy = true
  }
}

output "address" {
  description = "The name under which clients reach the store."
  value       = aws_opensearch_domain.this.endpoint
}
