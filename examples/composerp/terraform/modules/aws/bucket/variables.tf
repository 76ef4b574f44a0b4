variable "name" {
  type        = string
  description = "The name of the bucket; one name for the whole world."
}

variable "kms_key_arn" {
  type        = string
  description = "The key that encrypts the objects."
}

variable "keep_days" {
  type        = number
  description = "After how many days an object is removed; 0 to keep objects for good."
  default     = 0
}

variable "copies" {
  type        = map(string)
  description = "The regions that have a copy, each with the key that encrypts it there."
  default     = {}
}
