variable "name" {
  type        = string
  description = "The name of the cluster."
}

variable "instance_class" {
  type        = string
  description = "The machine of each member."
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

variable "require_tls" {
  type        = bool
  description = "Whether plain text is refused."
}

variable "backup_days" {
  type        = number
  description = "How many days backups are kept; within them any point in time can be restored."
}

resource "aws_docdb_subnet_group" "this" {
  name       = var.name
  subnet_ids = var.subnet_ids
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
  from_port                    = 27017
  to_port                      = 27017
}

resource "aws_docdb_cluster_parameter_group" "this" {
  name   = var.name
  family = "docdb5.0"

  parameter {
    name  = "tls"
    value = var.require_tls ? "enabled" : "disabled"
  }

  parameter {
    name  = "audit_logs"
    value = "enabled"
  }
}

resource "aws_docdb_cluster" "this" {
  # checkov:skip=CKV_AWS_360: The file says how long backups are kept.
  cluster_identifier              = var.name
  engine                          = "docdb"
  engine_version                  = "5.0.0"
  master_username                 = "owner"
  manage_master_user_password     = true
  db_subnet_group_name            = aws_docdb_subnet_group.this.name
  db_cluster_parameter_group_name = aws_docdb_cluster_parameter_group.this.name
  vpc_security_group_ids          = [aws_security_group.this.id]
  storage_encrypted               = true
  kms_key_id                      = var.kms_key_arn
  backup_retention_period         = var.backup_days
  deletion_protection             = true
  final_snapshot_identifier       = "${var.name}-final"
  enabled_cloudwatch_logs_exports = ["audit", "profiler"]

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_docdb_cluster_instance" "this" {
  count                      = var.members
  identifier                 = "${var.name}-${count.index + 1}"
  cluster_identifier         = aws_docdb_cluster.this.id
  instance_class             = var.instance_class
  auto_minor_version_upgrade = true
}

output "address" {
  description = "The name under which clients reach the store."
  value       = aws_docdb_cluster.this.endpoint
}
