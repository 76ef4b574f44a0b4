variable "name" {
  type        = string
  description = "What the names of the stores end with; the network alone sees them."
}

variable "resource_group" {
  type        = string
  description = "The resource group."
}

variable "tags" {
  type        = map(string)
  description = "What everything is labelled with."
}

variable "network_id" {
  type        = string
  description = "The network."
}

variable "stores" {
  type        = map(string)
  description = "The stores by their names, each with where clients reach it."
}
