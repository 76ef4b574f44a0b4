variable "name" {
  type        = string
  description = "The name of the bucket; one name for the whole world."
}

variable "location" {
  type        = string
  description = "The region, or the continent or country of the two regions that keep a copy each."
}

variable "copy_regions" {
  type        = list(string)
  description = "The two regions that keep a copy each; empty for one region."
  default     = []
}

variable "kms_key_id" {
  type        = string
  description = "The key that encrypts the objects; null for a key of the provider, which alone reaches over two regions."
  default     = null
}

variable "keep_days" {
  type        = number
  description = "After how many days an object is removed; 0 to keep objects for good."
  default     = 0
}
