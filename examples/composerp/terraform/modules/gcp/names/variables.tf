variable "name" {
  type        = string
  description = "What the names of the stores end with; the network alone sees them."
}

variable "zone" {
  type        = string
  description = "The name of the zone in the project."
}

variable "network_id" {
  type        = string
  description = "The network."
}

variable "stores" {
  type        = map(object({ address = string, type = string }))
  description = "The stores by their names, each with where clients reach it, and whether that is an address (A) or another name (CNAME)."
}
