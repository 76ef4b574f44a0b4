variable "name" {
  type        = string
  description = "What the names of everything in the network begin with."
}

variable "location" {
  type        = string
  description = "The region."
}

variable "cidr" {
  type        = string
  description = "The addresses of the network."
  default     = "10.0.0.0/16"
}
