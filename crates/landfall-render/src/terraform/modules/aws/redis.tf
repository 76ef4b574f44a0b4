variable "name" {
  type        = string
  description = "The name of the cache."
}

variable "engine_version" {
  type        = string
  description = "The major version."
}

variable "instance_class" {
  type        = string
  description = "The machine of each member."
}

variable "shards" {
  type        = number
  description = "Into how many parts the data is split."
}

variable "replicas" {
  type        = number
  description = "How many further copies each part has."
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
  description = "How many days snapshots are kept; 0 for no snapshots."
}

resource "aws_elasticache_subnet_group" "this" {
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
  from_port                    = 6379
  to_port                      = 6379
}

resource "aws_elasticache_replication_group" "this" {
  # checkov:skip=CKV_AWS_31: A token would stand in the state; only the nodes' security group may connect.
  # checkov:skip=CKV2_AWS_50: A cache without copies declares that it does not fail over.
  replication_group_id       = var.name
  description                = "Cache of the platform"
  engine                     = "valkey"
  engine_version             = var.engine_version
  node_type                  = var.instance_class
  num_node_groups            = var.shards
  replicas_per_node_group    = var.replicas
  automatic_failover_enabled = var.replicas > 0 || var.shards > 1
  multi_az_enabled           = var.replicas > 0
  at_rest_encryption_enabled = true
  kms_key_id                 = var.kms_key_arn
  transit_encryption_enabled = true
  transit_encryption_mode    = var.require_tls ? "required" : "preferred"
  subnet_group_name          = aws_elasticache_subnet_group.this.name
  security_group_ids         = [aws_security_group.this.id]
  snapshot_retention_limit   = var.backup_days
  auto_minor_version_upgrade = true

  lifecycle {
    prevent_destroy = true
  }
}

output "address" {
  description = "The name under which clients reach the store."
  value       = coalesce(aws_elasticache_replication_group.this.configuration_endpoint_address, aws_elasticache_replication_group.this.primary_endpoint_address)
}
