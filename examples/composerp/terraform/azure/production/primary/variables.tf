# From platform.regions.primary, in production

variable "subscription_id" {
  type        = string
  description = "The subscription."
}

variable "tenant_id" {
  type        = string
  description = "The tenant."
}
