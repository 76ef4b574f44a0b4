variable "name" {
  type        = string
  description = "What the names of everything in the network begin with."
}

variable "cidr" {
  type        = string
  description = "The addresses of the network."
  default     = "10.0.0.0/16"
}

variable "zones" {
  type        = list(string)
  description = "The availability zones; each gets a public, a private and a data subnet."
}
