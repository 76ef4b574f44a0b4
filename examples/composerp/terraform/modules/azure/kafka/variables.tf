variable "name" {
  type        = string
  description = "The name of the namespace of hubs."
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

variable "capacity" {
  type        = number
  description = "How many processing units."
}

variable "subnet_id" {
  type        = string
  description = "The subnet of private endpoints; there is no public address."
}

variable "topics" {
  type        = map(object({ partitions = number, retention_hours = number }))
  description = "The topics by name."
}
