variable "name" {
  type        = string
  description = "What the names of everything in the network begin with."
}

variable "location" {
  type        = string
  description = "The region."
}

variable "tags" {
  type        = map(string)
  description = "What everything is labelled with."
}

variable "zones" {
  type        = list(string)
  description = "The zones."
}

variable "cidr" {
  type        = string
  description = "The addresses of the network."
  default     = "10.0.0.0/16"
}
