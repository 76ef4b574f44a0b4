variable "name" {
  type        = string
  description = "The name of the vault: one name for the whole world."
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
  description = "The tenant whose accounts may read secrets."
}

variable "subnet_id" {
  type        = string
  description = "The subnet of private endpoints; there is no public address."
}
