variable "name" {
  type        = string
  description = "The name of the cluster."
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

variable "kubernetes_version" {
  type        = string
  description = "The minor version of Kubernetes."
}

variable "subnet_id" {
  type        = string
  description = "The private subnet of the nodes."
}

variable "tenant_id" {
  type        = string
  description = "The tenant whose groups the cluster knows."
}

variable "private_api" {
  type        = bool
  description = "Whether the API server has a private address only."
}

variable "api_addresses" {
  type        = list(string)
  description = "Who may reach a public API server, as CIDR blocks."
  default     = ["127.0.0.1/32"]
}

variable "pools" {
  type = map(object({
    count        = number
    machine_type = string
    zones        = list(string)
    dedicated    = bool
  }))

  description = "The node pools; their nodes are spread evenly over their zones."
}
