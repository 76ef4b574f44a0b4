variable "name" {
  type        = string
  description = "The name of the cache."
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

variable "instance_class" {
  type        = string
  description = "The machine of each member."
}

variable "available" {
  type        = bool
  description = "Whether the data has a second copy."
}

variable "subnet_id" {
  type        = string
  description = "The subnet of private endpoints; there is no public address."
}

resource "azurerm_managed_redis" "this" {
  name                      = var.name
  resource_group_name       = var.resource_group
  location                  = var.location
  sku_name                  = var.instance_class
  high_availability_enabled = var.available
  tags                      = var.tags

  default_database {
    client_protocol = "Encrypted"
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_private_endpoint" "this" {
  name                = var.name
  resource_group_name = var.resource_group
  location            = var.location
  subnet_id           = var.subnet_id
  tags                = var.tags

  private_service_connection {
    name                           = var.name
    private_connection_resource_id = azurerm_managed_redis.this.id
    subresource_names              = ["redisEnterprise"]
    is_manual_connection           = false
  }
}

output "address" {
  description = "The name under which clients reach the store."
  value       = azurerm_managed_redis.this.hostname
}
