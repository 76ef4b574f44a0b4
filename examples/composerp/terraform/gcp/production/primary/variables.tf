# From platform.regions.primary, in production

variable "api_addresses" {
  type        = list(string)
  description = "Who may reach the API server, as CIDR blocks."
  default     = []
}

variable "project" {
  type        = string
  description = "The project."
}
