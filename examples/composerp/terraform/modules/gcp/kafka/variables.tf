variable "name" {
  type        = string
  description = "The name of the brokers."
}

variable "location" {
  type        = string
  description = "The region."
}

variable "cpu" {
  type        = number
  description = "The cores of all brokers together, at least 3."
}

variable "memory" {
  type        = number
  description = "The memory of all brokers together, in GiB."
}

variable "subnet_id" {
  type        = string
  description = "The private subnet from which clients connect."
}

variable "kms_key_id" {
  type        = string
  description = "The key that encrypts the data."
}

variable "topics" {
  type        = map(object({ partitions = number, replication = number, in_sync = number }))
  description = "The topics by name."
}
