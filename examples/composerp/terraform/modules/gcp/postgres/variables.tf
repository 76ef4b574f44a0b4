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
