variable "name" {
  type        = string
  description = "The name of the identity."
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

variable "oidc_issuer" {
  type        = string
  description = "Who signs the tokens of service accounts."
}

variable "namespace" {
  type        = string
  description = "The namespace of the service account."
}

variable "service_account" {
  type        = string
  description = "The service account that takes the identity."
}

variable "storage_account_ids" {
  type        = list(string)
  description = "The accounts whose objects it may read and write."
  default     = []
}

variable "vault_ids" {
  type        = list(string)
  description = "The vaults whose secrets it may read."
  default     = []
}
