variable "name" {
  type        = string
  description = "The name of the server."
}

variable "resource_group" {
  type        = string
  description = "The resource group."
}

variable "location" {
  type        = string
  description = "The region."
}

variable "tags" {
  type        = map(string)
  description = "What everything is labelled with."
}

variable "tenant_id" {
  type        = string
  description = "The tenant whose accounts may connect."
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
  description = "The size of the volume, in GiB; the provider has powers of two."
}

variable "members" {
  type        = number
  description = "How many copies of the data: the second is a standby in another zone, the others are read replicas."
}

variable "zones" {
  type        = list(string)
  description = "The zones of the members."
}

variable "subnet_id" {
  type        = string
  description = "The subnet of databases; there is no public address."
}

variable "private_dns_zone_id" {
  type        = string
  description = "The private names of databases."
}

variable "require_tls" {
  type        = bool
  description = "Whether plain text is refused."
}

variable "backup_days" {
  type        = number
  description = "How many days backups are kept; within them any point in time can be restored."
}

variable "backup_copies" {
  type        = bool
  description = "Whether the provider keeps a copy of the backups in the paired region."
}
