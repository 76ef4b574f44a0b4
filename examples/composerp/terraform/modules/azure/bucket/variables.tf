variable "name" {
  type        = string
  description = "The name of the account: lower-case letters and digits, one name for the whole world."
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

variable "keep_days" {
  type        = number
  description = "After how many days an object is removed; 0 to keep objects for good."
  default     = 0
}

variable "copy_locations" {
  type        = list(string)
  description = "The regions that have a copy."
  default     = []
}

variable "subnet_id" {
  type        = string
  description = "The subnet of private endpoints; there is no public address."
}
