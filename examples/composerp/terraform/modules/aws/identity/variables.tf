variable "name" {
  type        = string
  description = "The name of the role."
}

variable "oidc_provider_arn" {
  type        = string
  description = "Who signs the tokens of service accounts, as IAM knows it."
}

variable "oidc_issuer" {
  type        = string
  description = "The same issuer, without a scheme."
}

variable "namespace" {
  type        = string
  description = "The namespace of the service account."
}

variable "service_account" {
  type        = string
  description = "The service account that takes the role."
}

variable "bucket_arns" {
  type        = list(string)
  description = "The buckets that it may read and write."
  default     = []
}

variable "secret_arns" {
  type        = list(string)
  description = "The secrets that it may read."
  default     = []
}

variable "kms_key_arn" {
  type        = string
  description = "The key of both."
}
