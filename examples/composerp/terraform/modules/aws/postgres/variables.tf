variable "name" {
  type        = string
  description = "The name of the instance."
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

variable "copy_regions" {
  type        = map(string)
  description = "The regions that have a copy of the backups, each with the key that encrypts it there."
  default     = {}
}
