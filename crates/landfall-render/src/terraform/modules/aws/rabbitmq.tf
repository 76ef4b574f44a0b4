variable "name" {
  type        = string
  description = "The name of the broker."
}

variable "engine_version" {
  type        = string
  description = "The version, as the provider writes it."
}

variable "instance_class" {
  type        = string
  description = "The machine of each member."
}

variable "members" {
  type        = number
  description = "One member, or a cluster over the zones."
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

variable "owner_password" {
  type        = string
  description = "The password of the owner; from the environment (TF_VAR_…), never from a file. The provider keeps it in the state."
  sensitive   = true
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
  from_port                    = 5671
  to_port                      = 5671
}

resource "aws_mq_broker" "this" {
  # checkov:skip=CKV_AWS_48: RabbitMQ has no audit log.
  broker_name                = var.name
  engine_type                = "RabbitMQ"
  engine_version             = var.engine_version
  host_instance_type         = var.instance_class
  deployment_mode            = var.members > 1 ? "CLUSTER_MULTI_AZ" : "SINGLE_INSTANCE"
  subnet_ids                 = var.members > 1 ? var.subnet_ids : [var.subnet_ids[0]]
  security_groups            = [aws_security_group.this.id]
  publicly_accessible        = false
  auto_minor_version_upgrade = true

  encryption_options {
    use_aws_owned_key = false
    kms_key_id        = var.kms_key_arn
  }

  logs {
    general = true
  }

  user {
    username = "owner"
    password = var.owner_password
  }

  lifecycle {
    prevent_destroy = true
  }
}

output "address" {
  description = "The name under which clients reach the store."
  value       = aws_mq_broker.this.instances[0].endpoints[0]
}
