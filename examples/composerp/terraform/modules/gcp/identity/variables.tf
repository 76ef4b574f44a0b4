variable "name" {
  type        = string
  description = "The name of the account."
}

variable "project" {
  type        = string
  description = "The project."
}

variable "namespace" {
  type        = string
  description = "The namespace of the service account."
}

variable "service_account" {
  type        = string
  description = "The service account of the cluster that acts as the account."
}

variable "buckets" {
  type        = list(string)
  description = "The buckets that it may read and write."
  default     = []
}

variable "secret_ids" {
  type        = list(string)
  description = "The secrets that it may read."
  default     = []
}
