variable "secrets" {
  type        = map(string)
  description = "The secrets by their path, each with what it is. Values are put there by people or by rotation, never here."
}

variable "kms_key_arn" {
  type        = string
  description = "The key that encrypts the values."
}
