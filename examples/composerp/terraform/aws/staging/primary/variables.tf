# From platform.regions.primary, in staging

variable "administrator_arns" {
  type        = set(string)
  description = "The IAM roles that administrate the cluster."
}
