variable "secrets" {
  type        = set(string)
  description = "The secrets by their names. Values are put there by people or by rotation, never here."
}

variable "location" {
  type        = string
  description = "The region, which the values do not leave."
}

variable "kms_key_id" {
  type        = string
  description = "The key that encrypts the values."
}
